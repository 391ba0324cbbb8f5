"""GS QKD 014 V1.1.1 turned into checks of a pair of KMEs, whoever made them. Nothing here knows a KME of ours."""
