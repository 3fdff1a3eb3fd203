# the one set of flags for CPU kernels; MSL_CXX, MSL_ARCH override
MSL_CXX=${MSL_CXX:-clang++-19}
MSL_ARCH=${MSL_ARCH:--march=native}
MSL_FLAGS="-std=c++17 -x c++ -nostdinc -O3 $MSL_ARCH -ffp-contract=off -fno-strict-aliasing -Xclang -cl-single-precision-constant -Xclang -ffloat16-excess-precision=none -fno-math-errno -fPIC -fvisibility=hidden -Wall -Wno-unused-function -Wno-unused-const-variable -Wno-reserved-identifier"
