"""ScaffoldLab: 3D keypoints between a vision-language model that plans and a policy that acts."""

__version__ = "0.1.0"
