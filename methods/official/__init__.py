"""What the official repositories call their parameters, and where each of them lies with us. One file a repository."""
