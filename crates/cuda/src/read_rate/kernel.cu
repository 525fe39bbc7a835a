// Reads memory and does nothing with it: what every other kernel's reading is compared with.

struct ReadArgs {
    const uint4 *from;
    u32 *out;
    u64 count; // of 16 bytes
};

extern "C" __global__ void read_weights(const ReadArgs a) {
    enter();
    u64 stride = (u64)gridDim.x * blockDim.x, i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    uint4 sum = make_uint4(0, 0, 0, 0);
    for (; i + 3 * stride < a.count; i += 4 * stride) {
        uint4 part[4];
#pragma unroll
        for (u32 k = 0; k < 4; k++) part[k] = a.from[i + k * stride];
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            sum.x ^= part[k].x;
            sum.y ^= part[k].y;
            sum.z ^= part[k].z;
            sum.w ^= part[k].w;
        }
    }
    for (; i < a.count; i += stride) {
        uint4 part = a.from[i];
        sum.x ^= part.x ^ part.y ^ part.z ^ part.w;
    }
    // The compiler cannot know that hardly anything adds up to this.
    if ((sum.x ^ sum.y ^ sum.z ^ sum.w) == 0x9e3779b9u) *a.out = sum.x;
}
