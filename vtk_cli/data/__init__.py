"""What comes in: the embedded datasets, image folders, and the checks that name what is wrong with them."""
