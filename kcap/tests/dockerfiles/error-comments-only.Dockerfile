# a

   # b
	
