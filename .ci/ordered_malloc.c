/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A malloc for clang that gives rising addresses and never one twice. LLVM
 * writes the types that a program only points to in the order of their
 * addresses (FixupDerivedTypes in lib/Target/BPF/BTFDebug.cpp), so with another
 * malloc the same source gives other bytes on another machine. Here the order
 * is that in which the types were read.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>

/* Address space; memory is used as it is written to. */
#define ROOM (1UL << 36)
#define LEAST _Alignof(max_align_t)

static char *room;
static size_t used;

__attribute__((constructor(101))) static void reserve(void)
{
	void *at;

	if (room)
		return;
	at = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	room = at == MAP_FAILED ? NULL : at;
}

static size_t *size_of(void *given)
{
	return (size_t *)given - 1;
}

void *memalign(size_t alignment, size_t size)
{
	size_t begin, at;

	reserve(); /* others' constructors allocate before ours runs */
	if (alignment < LEAST)
		alignment = LEAST;
	begin = __atomic_fetch_add(&used, size + alignment + sizeof(size_t), __ATOMIC_RELAXED);
	if (!room || size > ROOM || begin + size + 2 * alignment > ROOM) {
		errno = ENOMEM;
		return NULL;
	}
	at = ((size_t)room + begin + sizeof(size_t) + alignment - 1) & -alignment;
	*size_of((void *)at) = size;
	return (void *)at;
}

void *malloc(size_t size)
{
	return memalign(LEAST, size);
}
void *aligned_alloc(size_t alignment, size_t size)
{
	return memalign(alignment, size);
}
void free(void *given)
{
	(void)given;
}
size_t malloc_usable_size(void *given)
{
	return given ? *size_of(given) : 0;
}

void *calloc(size_t count, size_t size)
{
	size_t all;

	if (__builtin_mul_overflow(count, size, &all)) {
		errno = ENOMEM;
		return NULL;
	}
	return malloc(all); /* never used before, so it is zero */
}

void *realloc(void *given, size_t size)
{
	void *moved = malloc(size);
	size_t old = malloc_usable_size(given);

	if (moved && given)
		memcpy(moved, given, old < size ? old : size);
	return moved;
}

int posix_memalign(void **given, size_t alignment, size_t size)
{
	*given = memalign(alignment, size);
	return *given ? 0 : ENOMEM;
}
