"""What a plan is: tracks of keypoints and wrist over an episode, and libraries of them."""
