"""The disks that serving writes to: how much of them is free, and what that means for whoever comes."""
