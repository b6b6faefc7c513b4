"""Detection and instance masks with ViDT (arXiv 2110.03921) and ViDT+ (arXiv 2204.07962)."""
