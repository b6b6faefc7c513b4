"""The training of a teacher and of a student: what they see, for how long, and with which loss."""
