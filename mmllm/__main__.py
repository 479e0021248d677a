"`python -m mmllm`, which `torchrun -m mmllm` and `accelerate launch -m mmllm` start."
from mmllm import main

main()
