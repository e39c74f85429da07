//! The smallest guest that tells whether hardware acceleration works.
//!
//! Hosts exist on which `/dev/kvm` opens, real mode runs and even a BIOS gets through, while a
//! kernel stops at its first instructions in long mode: there the hypervisor emulates instructions
//! and does not know all of them. So this guest goes where a kernel goes: protected mode, paging,
//! long mode, a stack, SSE2 and CPUID. Then it writes a number to the debug exit port.

/// The I/O port of `isa-debug-exit`.
pub(super) const EXIT_PORT: u16 = 0xf4;

/// QEMU exits with `value << 1 | 1` when `value` is written to the port.
pub(super) const EXIT_STATUS: i32 = (0x5a << 1) | 1;

/// QEMU wants a BIOS of a multiple of 64 KiB; it ends at 4 GiB and is seen at 0xf0000 as well.
const ROM_BYTES: usize = 0x1_0000;

/// The reset vector, sixteen bytes below the end: `ljmp $0xf000, $0`.
const RESET_VECTOR: (usize, [u8; 5]) = (0xfff0, [0xea, 0x00, 0x00, 0x00, 0xf0]);

/// The program, at the start of the ROM. Comments give the assembly in AT&T form.
#[rustfmt::skip]
const PROGRAM: [u8; 222] = [
    // Real mode: load the descriptor table below and enter protected mode.
    0xfa,                                                       // cli
    0x2e, 0x66, 0x0f, 0x01, 0x16, 0xd8, 0x00,                   // lgdtl %cs:0xd8
    0x0f, 0x20, 0xc0,                                           // mov %cr0, %eax
    0x0c, 0x01,                                                 // or $PE, %al
    0x0f, 0x22, 0xc0,                                           // mov %eax, %cr0
    0x66, 0xea, 0x18, 0x00, 0x0f, 0x00, 0x08, 0x00,             // ljmpl $0x8, $0xf0018
    // Protected mode: flat data segments.
    0x66, 0xb8, 0x10, 0x00,                                     // mov $0x10, %ax
    0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0,                         // mov %ax, %ds; %es; %ss
    // Page tables at 0x1000: the first two megabytes, mapped to themselves.
    0xfc,                                                       // cld
    0xbf, 0x00, 0x10, 0x00, 0x00,                               // mov $0x1000, %edi
    0x31, 0xc0,                                                 // xor %eax, %eax
    0xb9, 0x00, 0x0c, 0x00, 0x00,                               // mov $0xc00, %ecx
    0xf3, 0xab,                                                 // rep stosl
    0xc7, 0x05, 0x00, 0x10, 0x00, 0x00, 0x03, 0x20, 0x00, 0x00, // movl $0x2003, 0x1000
    0xc7, 0x05, 0x00, 0x20, 0x00, 0x00, 0x03, 0x30, 0x00, 0x00, // movl $0x3003, 0x2000
    0xc7, 0x05, 0x00, 0x30, 0x00, 0x00, 0x83, 0x00, 0x00, 0x00, // movl $0x83, 0x3000
    0xb8, 0x00, 0x10, 0x00, 0x00,                               // mov $0x1000, %eax
    0x0f, 0x22, 0xd8,                                           // mov %eax, %cr3
    // Physical address extension and SSE.
    0x0f, 0x20, 0xe0,                                           // mov %cr4, %eax
    0x0d, 0x20, 0x06, 0x00, 0x00,                               // or $PAE|OSFXSR|OSXMMEXCPT, %eax
    0x0f, 0x22, 0xe0,                                           // mov %eax, %cr4
    // Long mode.
    0xb9, 0x80, 0x00, 0x00, 0xc0,                               // mov $EFER, %ecx
    0x0f, 0x32,                                                 // rdmsr
    0x0d, 0x00, 0x01, 0x00, 0x00,                               // or $LME, %eax
    0x0f, 0x30,                                                 // wrmsr
    0x0f, 0x20, 0xc0,                                           // mov %cr0, %eax
    0x83, 0xe0, 0xfb,                                           // and $~EM, %eax
    0x0d, 0x02, 0x00, 0x00, 0x80,                               // or $PG|MP, %eax
    0x0f, 0x22, 0xc0,                                           // mov %eax, %cr0
    0xea, 0x85, 0x00, 0x0f, 0x00, 0x18, 0x00,                   // ljmp $0x18, $0xf0085
    // 64 bits: carry 0x5a through the stack and the vector unit.
    0xbc, 0x00, 0x80, 0x00, 0x00,                               // mov $0x8000, %esp
    0x6a, 0x5a,                                                 // push $0x5a
    0x58,                                                       // pop %rax
    0x66, 0x48, 0x0f, 0x6e, 0xc0,                               // movq %rax, %xmm0
    0x66, 0x0f, 0xef, 0xc9,                                     // pxor %xmm1, %xmm1
    0x66, 0x0f, 0xd4, 0xc8,                                     // paddq %xmm0, %xmm1
    0x66, 0x48, 0x0f, 0x7e, 0xcb,                               // movq %xmm1, %rbx
    0xb8, 0x01, 0x00, 0x00, 0x00,                               // mov $1, %eax
    0x53,                                                       // push %rbx
    0x0f, 0xa2,                                                 // cpuid
    0x5b,                                                       // pop %rbx
    0x89, 0xd8,                                                 // mov %ebx, %eax
    0x66, 0xba, 0xf4, 0x00,                                     // mov $EXIT_PORT, %dx
    0xee,                                                       // out %al, %dx
    0xf4, 0xeb, 0xfd,                                           // 1: hlt; jmp 1b
    0x8d, 0xb4, 0x00, 0x00, 0x66, 0x90,                         // (alignment)
    // 0xb8: the descriptors: none, 32-bit code, data, 64-bit code. Their accessed bits are set:
    // the processor would otherwise write to this ROM.
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xcf, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x93, 0xcf, 0x00,
    0xff, 0xff, 0x00, 0x00, 0x00, 0x9b, 0xaf, 0x00,
    // 0xd8: size and address of the table.
    0x1f, 0x00, 0xb8, 0x00, 0x0f, 0x00,
];

/// The image for QEMU's `-bios`.
pub(super) fn rom() -> Vec<u8> {
    let mut rom = vec![0; ROM_BYTES];
    rom[..PROGRAM.len()].copy_from_slice(&PROGRAM);
    let (at, jump) = RESET_VECTOR;
    rom[at..at + jump.len()].copy_from_slice(&jump);
    rom
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_lie_where_the_code_expects_them() {
        let rom = rom();
        assert_eq!(rom.len(), ROM_BYTES);
        assert_eq!(rom[0xd8..0xde], [0x1f, 0x00, 0xb8, 0x00, 0x0f, 0x00]);
        assert_eq!(rom[0xc5], 0x9b);
        assert_eq!(rom[0x18..0x1a], [0x66, 0xb8], "protected mode begins here");
        assert_eq!(rom[0x85], 0xbc, "64-bit code begins here");
        assert_eq!(u16::from_le_bytes([rom[0xac], rom[0xad]]), EXIT_PORT);
        assert_eq!(rom[0xfff0], 0xea);
    }
}
