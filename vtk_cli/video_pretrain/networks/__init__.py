"""The networks of `vtk video-pretrain`: clips in, features out."""
