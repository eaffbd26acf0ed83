"""What the servers of this project share: where they listen, and whom they answer."""
