#![no_std]
//! Carries out a plan.
