"""Work in pieces that do not depend on one another: kept by content, shared by any number of tasks, put together."""
