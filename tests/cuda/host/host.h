// What the tests of cuda/host share: a counter of checks, tensors, transfers.
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <string>
#include <vector>

#include "../../../ffi/unsloth.h"
#include "../sim/fake.h"

using T = us_tensor;
using Bytes = std::vector<uint8_t>;

void check(const std::string& what, bool ok);
/** The sentence of the last failed call. */
std::string error();
/** The last call failed with a sentence that holds `part`. */
bool says(const char* part);

us_tensor view(uint32_t handle, uint64_t offset, uint32_t dtype, std::vector<uint32_t> shape);
uint32_t alloc(uint64_t bytes);
int32_t upload(uint32_t handle, uint64_t offset, const Bytes& bytes);
int32_t download(uint32_t handle, uint64_t offset, Bytes& bytes);
us_memory_args memory();

void test_machines();
void test_library();
void test_memory();
void test_graphs();
void test_profile();
void test_offload();
/** Every tensor of every operation is declared as the header says. */
void test_roles();
void test_read();
void test_read_failures();
void test_failures();
void test_cycles(int cycles);
void test_threads();
/** Random programs, held back and at once. */
void test_pending(uint64_t first, uint64_t programs);
