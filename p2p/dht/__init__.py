"""How companies find each other: signed records in a Kademlia network that strangers cannot crash, fill or mislead."""
