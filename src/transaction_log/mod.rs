//! transaction_log
