"""What tests share: real systems to test, and hands to move their clocks, kill their processes and read their books."""
