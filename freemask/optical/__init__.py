"""Optical flow: where the points of a clip go from frame to frame, who knows it, and the trajectories that follow."""
