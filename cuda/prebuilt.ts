/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "1e05dc3e1a075d2c3cb51e4780b86d6377fe1d0589e5c6307de582c797181fb5";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "740fda84a09d81a789de4d7d251896a3d5acfc9d08a1627860d79c6c1a9afdf8";
