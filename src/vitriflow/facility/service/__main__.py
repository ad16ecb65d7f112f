"""Where a child of the service ``vitriflow acquire`` begins."""

import sys

from vitriflow.facility.service.acquire_child import main

sys.exit(main())
