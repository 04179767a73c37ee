"""The overlay: identities, wire formats, channels, directory, contracts and reputation, used by `company` and `simulator`."""
