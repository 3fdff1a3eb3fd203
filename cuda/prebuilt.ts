/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "7d96808aacb28cbf3d8de40c8fcb334ee64b7480ff82ab79bf0afe342d24968d";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "a2d93b102276e549effb9ad25a5d9e9376745d9d6bb969b690ff766abbe35276";
