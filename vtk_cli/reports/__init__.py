"""What people look at: plots, contact sheets and pages. matplotlib and Jinja2 are imported on use."""
