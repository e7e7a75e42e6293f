/* What the stand-in says of its device: an H100 80GB HBM3. */
#define DEVICE_NAME "NVIDIA H100 80GB HBM3 (stand-in)"
#define DEVICE_MEMORY 85000000000UL

/* By CUDA's numbers of attributes, the same for the runtime and the driver. What is not listed is 1: yes. */
static int attribute(int name) {
  switch (name) {
    case 1: case 2: case 3: return 1024;    /* threads in a block, in its x and y */
    case 4: return 64;                      /* and z */
    case 5: return 2147483647;              /* blocks in a grid's x */
    case 6: case 7: return 65535;           /* y, z */
    case 8: return 49152;                   /* bytes of shared memory a block */
    case 10: return 32;                     /* threads in a warp */
    case 12: case 82: return 65536;         /* registers a block, a multiprocessor */
    case 13: return 1980000;                /* kHz */
    case 16: return 132;                    /* multiprocessors */
    case 36: return 2619000;                /* kHz of the memory */
    case 37: return 5120;                   /* bits of its bus */
    case 38: return 50 << 20;               /* bytes of L2 */
    case 39: return 2048;                   /* threads a multiprocessor */
    case 75: return 9;                      /* compute capability 9.0 */
    case 76: return 0;
    case 81: return 233472;                 /* bytes of shared memory a multiprocessor */
    case 97: return 232448;                 /* a block, where it opts in */
    case 106: return 32;                    /* blocks a multiprocessor */
    default: return 1;
  }
}
