"""Who is who: names, numbers at devices, cards and PINs, and what they may open."""
