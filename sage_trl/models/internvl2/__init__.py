"""Released InternVL2 checkpoints (`internvl_chat`) turned into the native `internvl` format, no remote code run."""
