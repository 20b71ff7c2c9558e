"""Its import changes whatever a module can change for others."""

import logging
import multiprocessing
import os
import random
import sys
import threading
import warnings

import numpy as np
import torch

torch.set_num_threads(torch.get_num_threads() + 1)
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
np.random.seed(0)
random.seed(0)
os.environ["NIDL_MEDDLES"] = "1"
sys.path.append("/nowhere")
warnings.simplefilter("ignore", UserWarning)
logging.basicConfig(level=logging.DEBUG)
multiprocessing.set_start_method("spawn")
torch.nn.functional.relu = torch.nn.functional.gelu
torch.nn.Module.__call__ = lambda module, *inputs: module.forward(*inputs)
threading.Thread(target=threading.Event().wait, name="meddler").start()
print("a greeting")
os.write(1, b"and another\n")
