"""The arguments that Python hands to a kernel: 64-bit integers at fixed places, many addresses."""

# Work: a shared counter, how many pieces there are, how many make one sample, which phases to run.
COUNTER, PIECES, SHARES, PHASES = range(4)
# Sizes: N, C, P, hidden units, T, H, W and the kernel's.
SAMPLES, CHANNELS, POSITIONS, UNITS, FRAMES, HEIGHT, WIDTH, KT, KH, KW = range(4, 14)
# Statistics: how many, and the index of mean and of max among them, -1 for none.
CHANNEL_DEPTH, CHANNEL_MEAN, CHANNEL_TOP, SPATIAL_DEPTH, SPATIAL_MEAN, SPATIAL_TOP = range(14, 20)
# The two gates' factors before σ, whether the ReLU is folded in, and the tile of positions.
CHANNEL_SCALE, SPATIAL_SCALE, RELU, TILE = range(20, 24)
# Addresses; 0 where there is none.
X, Y, RESIDUAL, SAVED, W0, B0, W1, B1, WC, BC = range(24, 34)
# Scratch: an area per thread, its length in numbers, the counter that hands them out; shared sums.
SCRATCH, SCRATCH_LENGTH, SCRATCH_TAKEN, SUMS = range(34, 38)
# Of the backward pass: dx, the parameters' gradients, and what passes from phase to phase.
DX, DW0, DB0, DW1, DB1, DWC, DBC = range(38, 45)
DZ, DHIDDEN, DDESCRIPTORS, DMAPS, PARTS, KERNEL_PARTS = range(45, 51)
# The primitives: indices of the statistics, -1 for none; a sample as a matrix and the tiles of it.
MEAN, TOP, STD, L2, DEPTH, ROWS, COLUMNS, TILES = range(51, 59)
# Descriptors, the gates of rows and of columns, and the gradients of these.
POOLED, DPOOLED, ROW_GATE, COLUMN_GATE, DROW, DCOLUMN = range(59, 65)
# Whether the large output goes past the caches.
PAST = 65
# Strides of the convolution's weights, in elements: maps, frames, rows, columns.
WC_STRIDES = 66
LENGTH = 70

# Phases of the forward pass, in this order.
POOL, HIDDEN, LOGITS, STATISTICS, MAP, APPLY = 1, 2, 4, 8, 16, 32
FORWARD = POOL | HIDDEN | LOGITS | STATISTICS | MAP | APPLY
# Phases of the backward pass, in this order.
PRODUCTS, MAP_GRADIENT, WEIGHTED, LOGITS_GRADIENT, HIDDEN_GRADIENT = 1, 2, 4, 8, 16
DESCRIPTOR_GRADIENT, GRADIENT, PARAMETERS = 32, 64, 128
# Phases that take all samples together: their pieces are ranges of units or channels.
BATCHED = 256

# Phases of the primitives' backward passes: tile by tile, then the sum of what the tiles left.
TILE_BY_TILE, TOGETHER = 1, 2
