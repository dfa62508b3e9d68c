"""What a network is: search spaces, children, plans and costs, without tensors."""
