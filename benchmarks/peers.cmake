# Read by llama.cpp's build, right after it names its project: its bindings build this library of the command-line tools
# for half of the time, and never use it.
set(LLAMA_BUILD_COMMON OFF)
