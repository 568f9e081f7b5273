"""What all tests share: how hypothesis searches."""

import os

from hypothesis import settings

# No deadline: on shared cores the time of one example says nothing. In CI the search is the same each time, so that red
# means that the change is at fault; at a developer's desk it looks for something new, and prints how to see it again.
settings.register_profile("desk", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
