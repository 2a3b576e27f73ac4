//! The `arakoon` program; see [`arakoon::cli`].

fn main() -> std::process::ExitCode {
    arakoon::cli::main()
}
