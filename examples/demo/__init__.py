"""The main job on one screen: two installations, sixty devices, and every refusal beside its benign twin."""
