//! From residual to episode: standardise, smooth, threshold, debounce, attribute.
