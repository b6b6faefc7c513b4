"""How alike networks are, by how well adversarial images of one fool the other (SAT, arXiv 2210.11407)."""
