/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The generated kernel types of the architecture that is compiled for. */
#if defined(__TARGET_ARCH_x86)
#include "amd64/vmlinux.h"
#elif defined(__TARGET_ARCH_arm64)
#include "arm64/vmlinux.h"
#else
#error "no vmlinux.h for this architecture"
#endif
