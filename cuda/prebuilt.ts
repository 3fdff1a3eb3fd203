/** Written by cuda/build.sh: which sources the prebuilt library was built from, and which file it is. @module */

/** SHA-256 over the SHA-256 of each source, as `cuda/build.sh --hash` prints it. */
export const SOURCES_SHA256 = "1383b837d597dd2c29092161c40771464d6c890efb075bcabb07f611aa9464e3";
/** SHA-256 of prebuilt/linux-x64/libunsloth_cuda.so. */
export const LIBRARY_SHA256 = "5a25aeaf5dc5b2cdde045c92300f4e9be0ac62ff51812bde08e50f7b61859279";
