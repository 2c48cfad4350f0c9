"""What a token stands for, and where that is kept: issue, redeem, revoke, resume."""
