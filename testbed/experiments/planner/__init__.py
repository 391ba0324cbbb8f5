"""What planners could carry that know more than a network does: all sessions beforehand, or all but those to come."""
