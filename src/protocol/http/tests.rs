//! Tests of the files whose tests are long.
