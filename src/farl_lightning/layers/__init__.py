"""Small nn.Modules that several networks share."""
