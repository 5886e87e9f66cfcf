"""Write the environment that a launcher gives to this rank. Usage: print_environment.py FOLDER"""

import json
import os
import sys
from pathlib import Path

Path(sys.argv[1], f"{os.environ['RANK']}.json").write_text(json.dumps(dict(os.environ)))
