#![no_std]
//! The vocabulary of a container start.
