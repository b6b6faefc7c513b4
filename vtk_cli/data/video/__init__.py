"""Videos for training and testing: lists, readers that survive damaged files, sampling, views, clips."""
