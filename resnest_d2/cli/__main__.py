import sys

from resnest_d2_command import main

sys.exit(main())
