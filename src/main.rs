//! The `arakoon` program; see [`arakoon::cli`].

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    arakoon::cli::main()
}
