//! stub
pub mod attach;
pub mod events;
pub mod masking;
pub mod tree;
