"""What a run says about itself: start-up report, traps, memory, failures and their replay."""
