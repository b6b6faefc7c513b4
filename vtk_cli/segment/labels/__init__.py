"""Labels that people give: masks and clicks, opened, held against each other, split, and what they cost."""
